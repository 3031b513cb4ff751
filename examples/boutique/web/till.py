"""The pages where one pays: cart, checkout, order; and the page for when that fails."""

from html import escape

from examples.boutique.web.layout import Frame, drawing, page, picture
from examples.boutique.web.views import BillView, FormView, LineView, OrderView

# name, label, width class, autocomplete, input mode
ADDRESS_FIELDS = (
    ("name", "Full name", "w3", "name", "text"),
    ("email", "Email", "w3", "email", "email"),
    ("street", "Street and number", "w6", "street-address", "text"),
    ("postcode", "Postcode", "w2", "postal-code", "text"),
    ("city", "City", "w4", "address-level2", "text"),
    ("country", "Country", "w6", "country-name", "text"),
)
CARD_FIELDS = (
    ("card", "Card number", "w6", "cc-number", "numeric"),
    ("expiry", "Expires (MM/YY)", "w3", "cc-exp", "numeric"),
    ("cvc", "Security code", "w3", "cc-csc", "numeric"),
)


def cart_page(frame: Frame, bill: BillView) -> bytes:
    """What the shopper has chosen, to be changed or paid for."""
    if not bill.lines:
        body = """<div class="done"><h1>Your cart is empty</h1>
<p class="quiet">Nine things are waiting on the shelves.</p>
<p><a class="button" href="/">Look around</a></p></div>"""
        return page("Cart", frame, body)
    lines = "".join(map(_cart_line, bill.lines))
    body = f"""<p class="crumbs"><a href="/">All goods</a> <span class="quiet">/ Cart</span></p>
<h1>Your cart</h1>
<div class="split"><ul class="lines">{lines}</ul>
<aside class="panel" aria-label="Summary"><h2>Summary</h2>{_sum(bill)}
<a class="button wide" href="/checkout">Go to checkout</a></aside></div>"""
    return page("Cart", frame, body)


def checkout_page(frame: Frame, bill: BillView, form: FormView) -> bytes:
    """Address and card."""
    alert = f'<p class="alert" role="alert">{escape(form.problem)}</p>' if form.problem else ""
    lines = "".join(map(_short_line, bill.lines))
    body = f"""<p class="crumbs"><a href="/cart">Cart</a> <span class="quiet">/ Checkout</span></p>
<h1>Checkout</h1>
<div class="split"><form method="post" action="/checkout" novalidate>{alert}
<fieldset><legend>Where to</legend>{"".join(_field(row, form) for row in ADDRESS_FIELDS)}</fieldset>
<fieldset><legend>How to pay</legend>{"".join(_field(row, form) for row in CARD_FIELDS)}</fieldset>
<button class="button">Pay {bill.total}</button></form>
<aside class="panel" aria-label="Your order"><h2>Your order</h2><dl class="sum">{lines}</dl>{_sum(bill)}</aside></div>"""
    return page("Checkout", frame, body)


def order_page(frame: Frame, order: OrderView) -> bytes:
    """The receipt."""
    lines = "".join(map(_order_line, order.bill.lines))
    trace = (
        f'<dt>Trace</dt><dd><code id="trace">{escape(order.trace_id)}</code></dd>' if order.trace_id else ""
    )
    body = f"""<div class="done">{drawing("done")}<h1>Thank you, {escape(order.name)}</h1>
<p class="quiet">Your order is on its way and should arrive in {order.bill.days} days.
A receipt goes to {escape(order.email)}.</p></div>
<div class="panel receipt"><ul class="lines">{lines}</ul>{_sum(order.bill)}
<dl class="ids"><dt>Order</dt><dd><code id="order">{escape(order.id)}</code></dd>
<dt>Parcel</dt><dd><code>{escape(order.tracking_id)}</code></dd>
<dt>Paid with</dt><dd>card ending in {escape(order.last_digits)}</dd>{trace}</dl></div>
<p class="center"><a class="button" href="/">Back to the shelves</a></p>"""
    return page("Order placed", frame, body)


def problem_page(title: str, text: str, *, refresh_s: int = 0) -> bytes:
    """Why there is no page; asks again by itself after `refresh_s` seconds, unless that is 0."""
    body = f"""<div class="done"><h1>{escape(title)}</h1><p class="quiet">{escape(text)}</p>
<p><a class="button" href="/">To the shelves</a></p></div>"""
    return page(title, Frame(), body, refresh_s=refresh_s)


def _cart_line(line: LineView) -> str:
    name, product = escape(line.name), escape(line.product_id)
    return f"""<li>{picture(line.product_id)}<div><a class="name" href="/product/{product}">{name}</a>
<form class="change" method="post" action="/cart/change"><input type="hidden" name="product" value="{product}">
<label for="q-{product}">Quantity</label>
<input id="q-{product}" name="quantity" type="number" min="1" max="20" value="{line.quantity}">
<button class="link" aria-label="Update the quantity of {name}">Update</button>
<button class="link" name="remove" value="1" aria-label="Remove {name}">Remove</button></form></div>
<strong>{line.total}</strong></li>"""


def _short_line(line: LineView) -> str:
    return f"<dt>{escape(line.name)} &times; {line.quantity}</dt><dd>{line.total}</dd>"


def _order_line(line: LineView) -> str:
    return f"""<li>{picture(line.product_id)}<div><span class="name">{escape(line.name)}</span>
<p class="quiet">&times; {line.quantity}</p></div><strong>{line.total}</strong></li>"""


def _sum(bill: BillView) -> str:
    return f"""<dl class="sum"><dt>Goods</dt><dd>{bill.subtotal}</dd><dt>Delivery</dt><dd>{bill.shipping}</dd>
<dt class="total">Total</dt><dd class="total">{bill.total}</dd></dl>"""


def _field(row: tuple[str, str, str, str, str], form: FormView) -> str:
    name, label, width, autocomplete, mode = row
    problem = form.problems.get(name, "")
    described = f' aria-invalid="true" aria-describedby="{name}-problem"' if problem else ""
    note = f'<p class="problem" id="{name}-problem">{escape(problem)}</p>' if problem else ""
    return f"""<div class="{width}"><label for="{name}">{label}</label>
<input id="{name}" name="{name}" value="{escape(form.values.get(name, ""))}" autocomplete="{autocomplete}"
 inputmode="{mode}" required{described}>{note}</div>"""
