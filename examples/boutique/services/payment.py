"""The payment service: takes the money, or says why not. No card leaves this process, and none is printed."""
# ruff: noqa: N802 - the .proto names the methods

import datetime
import uuid

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services.runtime import refuse, serve_grpc


class Payment(shop_pb2_grpc.PaymentServiceServicer):
    """Accepts every card that could be one and has not expired."""

    def Charge(self, request: shop_pb2.ChargeRequest, context: grpc.ServicerContext) -> shop_pb2.Payment:
        """Charge the card once."""
        digits = request.card.number.replace(" ", "")
        if request.amount.micros <= 0:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "expected an amount above zero")
        if not is_card_number(digits):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "this is not a card number")
        if is_expired(request.card, datetime.datetime.now(datetime.UTC).date()):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "the card has expired")
        return shop_pb2.Payment(transaction_id=str(uuid.uuid4()), last_digits=digits[-4:])


def is_card_number(digits: str) -> bool:
    """Whether the digits pass the check that every card number carries (ISO/IEC 7812-1, Luhn)."""
    if not (digits.isascii() and digits.isdigit() and 12 <= len(digits) <= 19):
        return False
    doubled = (int(d) * 2 for d in digits[-2::-2])
    total = sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)
    return total % 10 == 0


def is_expired(card: shop_pb2.Card, today: datetime.date) -> bool:
    """Whether the card's last month is over."""
    return (card.expiry_year, card.expiry_month) < (today.year, today.month)


if __name__ == "__main__":
    serve_grpc(
        "shop.PaymentService",
        lambda server: shop_pb2_grpc.add_PaymentServiceServicer_to_server(Payment(), server),
    )
