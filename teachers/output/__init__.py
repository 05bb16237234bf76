"""The files that `dhrd-teach` writes, safe against kills and shared by processes."""
