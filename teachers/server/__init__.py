"""The teacher `openai:MODEL`: requests to a server, within limits."""
