"""The engines that carry bytes."""
