"""Registry generation, targets, compilation: from the catalog to a library."""
