"""The recommendation service: what goes well with the products named; asks the catalog what there is."""
# ruff: noqa: N802 - the .proto names the methods

from collections.abc import Iterable

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services.runtime import connect, serve_grpc

DEFAULT_LIMIT = 3


class Recommendation(shop_pb2_grpc.RecommendationServiceServicer):
    """Prefers the shelf that the shopper stands at."""

    def __init__(self, catalog: shop_pb2_grpc.CatalogServiceStub) -> None:
        self._catalog = catalog

    def List(
        self, request: shop_pb2.RecommendationRequest, context: grpc.ServicerContext
    ) -> shop_pb2.RecommendationReply:
        """Other products, the best first."""
        products = self._catalog.List(shop_pb2.Empty()).products
        chosen = rank(products, frozenset(request.product_ids))
        return shop_pb2.RecommendationReply(product_ids=chosen[: request.limit or DEFAULT_LIMIT])


def rank(products: Iterable[shop_pb2.Product], seen: frozenset[str]) -> list[str]:
    """Ids of the products not seen yet: those of a seen category first, else in the catalog's order."""
    listed = list(products)
    shelves = {product.category for product in listed if product.id in seen}
    fresh = [product for product in listed if product.id not in seen]
    return [product.id for product in sorted(fresh, key=lambda product: product.category not in shelves)]


if __name__ == "__main__":
    serve_grpc(
        "shop.RecommendationService",
        lambda server: shop_pb2_grpc.add_RecommendationServiceServicer_to_server(
            Recommendation(shop_pb2_grpc.CatalogServiceStub(connect("CATALOG_SERVICE_ADDR"))), server
        ),
    )
