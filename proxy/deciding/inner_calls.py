"""Marks what becomes of a call that InvokeService makes: metrics count the app's call of that method in its place. Pure."""

from msgspec.structs import replace

from proxy.contract.plan import Decision, Hold, Reply
from proxy.deciding.app_answers import CauseReplies


def as_inner(found: Decision) -> Decision:
    """The same for a call that InvokeService makes."""
    if isinstance(found, Hold):
        return replace(found, then=replace(found.then, labels=replace(found.then.labels, is_inner=True)))
    labels = replace(found.labels, is_inner=True)
    if isinstance(found, Reply):
        return replace(found, labels=labels)
    replies = found.local_replies
    if isinstance(replies, CauseReplies):
        replies = replies.labelled(labels)
    return replace(found, labels=labels, local_replies=replies)
