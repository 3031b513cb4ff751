"""The catalog service: what the shop sells, priced in US dollars, from products.json."""
# ruff: noqa: N802 - the .proto names the methods

import json
from collections.abc import Iterator
from pathlib import Path

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services.runtime import refuse, serve_grpc

PRODUCTS_FILE = Path(__file__).with_name("products.json")


def read_products() -> Iterator[shop_pb2.Product]:
    """The products of the file, in its order."""
    for row in json.loads(PRODUCTS_FILE.read_text(encoding="utf-8")):
        price = shop_pb2.Money(currency="USD", micros=row.pop("dollars") * 1_000_000)
        yield shop_pb2.Product(price=price, **row)


class Catalog(shop_pb2_grpc.CatalogServiceServicer):
    """Answers from the products read at the start."""

    def __init__(self) -> None:
        self._products = {product.id: product for product in read_products()}

    def List(self, request: shop_pb2.Empty, context: grpc.ServicerContext) -> shop_pb2.ProductList:
        """Every product."""
        return shop_pb2.ProductList(products=self._products.values())

    def Get(
        self, request: shop_pb2.GetProductsRequest, context: grpc.ServicerContext
    ) -> shop_pb2.ProductList:
        """The products named, in that order."""
        missing = [product_id for product_id in request.ids if product_id not in self._products]
        if missing:
            refuse(context, grpc.StatusCode.NOT_FOUND, f"no product {missing[0]!r}")
        return shop_pb2.ProductList(products=[self._products[product_id] for product_id in request.ids])


if __name__ == "__main__":
    serve_grpc(
        "shop.CatalogService",
        lambda server: shop_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server),
    )
