"""The contract between deciding and carrying: frozen values and protocols; imports nothing of ours."""
