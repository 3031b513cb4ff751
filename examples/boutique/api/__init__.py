"""The shop's interface: shop.proto and the modules generated from it."""
