"""The shipping service: what delivery costs, and the delivery itself; asks the currency service for prices."""
# ruff: noqa: N802 - the .proto names the methods

import secrets

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services.runtime import connect, refuse, serve_grpc

BASE_USD_MICROS = 6_000_000
PIECE_USD_MICROS = 1_500_000
HOME_DAYS, ABROAD_DAYS = 2, 5
HOME_COUNTRIES = frozenset({"", "Germany"})


class Shipping(shop_pb2_grpc.ShippingServiceServicer):
    """Quotes by the piece."""

    def __init__(self, currency: shop_pb2_grpc.CurrencyServiceStub) -> None:
        self._currency = currency

    def Quote(self, request: shop_pb2.QuoteRequest, context: grpc.ServicerContext) -> shop_pb2.Quote:
        """Cost and days for these items; nothing for no items."""
        pieces = sum(item.quantity for item in request.items)
        micros = BASE_USD_MICROS + PIECE_USD_MICROS * pieces if pieces else 0
        dollars = shop_pb2.Money(currency="USD", micros=micros)
        reply = self._currency.Convert(shop_pb2.ConvertRequest(amounts=[dollars], to=request.currency))
        days = HOME_DAYS if request.address.country in HOME_COUNTRIES else ABROAD_DAYS
        return shop_pb2.Quote(cost=reply.amounts[0], days=days)

    def Ship(self, request: shop_pb2.ShipRequest, context: grpc.ServicerContext) -> shop_pb2.Shipment:
        """Hand the parcel over."""
        if not request.items or not request.address.street:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "expected items and a street")
        return shop_pb2.Shipment(tracking_id=f"WK{secrets.randbelow(10**10):010d}")


if __name__ == "__main__":
    serve_grpc(
        "shop.ShippingService",
        lambda server: shop_pb2_grpc.add_ShippingServiceServicer_to_server(
            Shipping(shop_pb2_grpc.CurrencyServiceStub(connect("CURRENCY_SERVICE_ADDR"))), server
        ),
    )
