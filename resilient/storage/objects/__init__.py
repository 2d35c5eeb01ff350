"""Uploads and private downloads: signed forms and links, and the check of what came in.

A browser talks to S3 itself. The application signs what it may do, and confirms what it did:

    photos = Bucket("imagery", secrets=[secret])
    ticket = photos.presign_post(policy, owner=user.id, filename=name)   # for the browser
    stored = photos.confirm(ticket.token)                                # when it says that it is done
    link = photos.presign_get(stored.key, expires=300)
"""

from resilient.storage.objects._bucket import Bucket, Link, StoredObject, Ticket
from resilient.storage.objects._evaluate import Refusal, evaluate
from resilient.storage.objects._events import UploadConfirmed, UploadRejected
from resilient.storage.objects._policy import UploadPolicy

__all__ = [
    "Bucket",
    "Link",
    "Refusal",
    "StoredObject",
    "Ticket",
    "UploadConfirmed",
    "UploadPolicy",
    "UploadRejected",
    "evaluate",
]
