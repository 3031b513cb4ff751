"""What can keep the demo from running."""


class DemoError(Exception):
    """The demonstration cannot go on; the text says at which step and where to read more."""


class CommandFailedError(DemoError):
    """A `postern` command did not do what was asked."""


class ShopError(DemoError):
    """The shop answered something else than a shopper expects."""


class ZipkinUnavailableError(DemoError):
    """Zipkin cannot be shown here; the demonstration goes on without it."""
