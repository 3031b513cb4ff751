"""The pages to look around in: all products, and one."""

from html import escape

from examples.boutique.web.layout import Frame, drawing, page, picture
from examples.boutique.web.views import ProductView, Review, Reviews


def home_page(frame: Frame, products: tuple[ProductView, ...]) -> bytes:
    """Everything the shop sells."""
    body = f"""<div class="hero"><div>
<p class="eyebrow">By the side door</p>
<h1>Small goods for quiet rooms</h1>
<p>Nine things made slowly, by people we know, to be used every day.</p>
</div>{drawing("hero")}</div>
<h2>On the shelves</h2>
<ul class="grid">{"".join(map(_tile, products))}</ul>"""
    return page("Small goods for quiet rooms", frame, body)


def product_page(
    frame: Frame, product: ProductView, reviews: Reviews, others: tuple[ProductView, ...]
) -> bytes:
    """One product, what others say of it, and what goes with it."""
    choices = "".join(f"<option>{count}</option>" for count in range(1, 6))
    body = f"""<p class="crumbs"><a href="/">All goods</a> <span class="quiet">/ {escape(product.name)}</span></p>
<div class="product">
{picture(product.id)}
<div>
<p class="eyebrow">{escape(product.category)}</p>
<h1>{escape(product.name)}</h1>
<p class="lead">{escape(product.tagline)}</p>
<p class="price">{product.price}</p>
<p>{escape(product.description)}</p>
<form class="buy" method="post" action="/cart">
<input type="hidden" name="product" value="{escape(product.id)}">
<div><label for="quantity">Quantity</label><select id="quantity" name="quantity">{choices}</select></div>
<button class="button">Add to cart</button>
</form>
<ul class="facts">{_bought(reviews.bought)}<li>Sent within two working days, returned within thirty</li></ul>
</div>
</div>
{_reviews(reviews)}
{_others(others)}"""
    return page(product.name, frame, body)


def _tile(product: ProductView) -> str:
    return f"""<li><a class="tile" href="/product/{escape(product.id)}">
{picture(product.id)}
<div class="row"><span class="name">{escape(product.name)}</span> <span class="price">{product.price}</span></div>
<p class="quiet tagline">{escape(product.tagline)}</p></a></li>"""


def _bought(count: int) -> str:
    if not count:
        return ""
    return f"<li>Bought {'once' if count == 1 else f'{count} times'} since the shop opened</li>"


def _reviews(reviews: Reviews) -> str:
    if not reviews.known:
        return '<section><h2>What shoppers say</h2><p class="quiet">The reviews cannot be read just now.</p></section>'
    if not reviews.reviews:
        return ""
    listed = "".join(map(_review, reviews.reviews))
    return f'<section><h2>What shoppers say</h2><ul class="reviews">{listed}</ul></section>'


def _review(review: Review) -> str:
    stars = "★" * review.stars + "☆" * (5 - review.stars)
    return f"""<li><span class="stars" role="img" aria-label="{review.stars} of 5 stars">{stars}</span>
<q>{escape(review.text)}</q><span class="quiet">{escape(review.author)}</span></li>"""


def _others(products: tuple[ProductView, ...]) -> str:
    if not products:
        return ""
    tiles = "".join(map(_tile, products))
    return f'<section><h2>Goes well with it</h2><ul class="grid three">{tiles}</ul></section>'
