"""The currency service: amounts from one currency to another, at fixed rates of its own."""
# ruff: noqa: N802 - the .proto names the methods

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services import money
from examples.boutique.services.runtime import refuse, serve_grpc

# Units that one US dollar buys.
RATES = {"USD": 1.0, "EUR": 0.91, "GBP": 0.78, "JPY": 149.0, "CHF": 0.88, "SEK": 10.4}


class Currency(shop_pb2_grpc.CurrencyServiceServicer):
    """Converts by way of the dollar."""

    def List(self, request: shop_pb2.Empty, context: grpc.ServicerContext) -> shop_pb2.CurrencyList:
        """The codes that amounts can be in."""
        return shop_pb2.CurrencyList(codes=RATES)

    def Convert(
        self, request: shop_pb2.ConvertRequest, context: grpc.ServicerContext
    ) -> shop_pb2.ConvertReply:
        """Each amount in the currency asked for, in the order given."""
        unknown = {request.to, *(amount.currency for amount in request.amounts)} - RATES.keys()
        if unknown:
            codes = ", ".join(RATES)
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"expected one of {codes}, got {min(unknown)!r}",
            )
        return shop_pb2.ConvertReply(amounts=[_convert(amount, request.to) for amount in request.amounts])


def _convert(amount: shop_pb2.Money, to: str) -> shop_pb2.Money:
    if amount.currency == to:
        return amount
    return money.rounded(amount.micros / RATES[amount.currency] * RATES[to], to)


if __name__ == "__main__":
    serve_grpc(
        "shop.CurrencyService",
        lambda server: shop_pb2_grpc.add_CurrencyServiceServicer_to_server(Currency(), server),
    )
