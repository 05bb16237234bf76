"""`dhrd-distill sweep`: a search for the settings whose students do best on the dev rows."""
