"""The portable engine: pure Python on asyncio, h2 and h11."""
