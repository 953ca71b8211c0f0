"""The stages of the importer, from protobuf to a typed graph; `ortolan.importer` calls them."""
