"""`dhrd-report diff A B`: two models, document by document."""
