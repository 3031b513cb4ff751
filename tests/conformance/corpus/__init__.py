"""Messages that every engine must refuse, and some that it must not, as data."""
