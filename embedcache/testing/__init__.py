"""What tests and authors of extensions need: small real files, weights and stores, and comparisons of them."""
