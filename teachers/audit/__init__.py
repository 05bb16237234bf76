"""What a rationale file holds, and what is wrong with it: `dhrd-teach audit`."""
