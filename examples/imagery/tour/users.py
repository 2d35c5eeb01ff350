"""The simulated users: each creates, uploads, confirms, looks, lists, and compares what it reads with what it wrote."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from examples.imagery.sepia import sample, sepia
from examples.imagery.tour.browser import Answer, Browser, Failed
from examples.imagery.tour.tally import Tally
from resilient.clock import SYSTEM
from resilient.runtime import start_thread

__all__ = ["Crowd", "Upload", "User"]


@dataclass
class Upload:
    """One image that the application accepted.

    Args:
        id: The image.
        owner: Whose.
        jpeg: The bytes of the last upload that was accepted.
    """

    id: str
    owner: str
    jpeg: bytes = field(repr=False)


class User:
    """One user, on one thread.

    Args:
        name: The owner of the images.
        webs: The addresses of the web processes.
        tally: Where everything is counted.
        pause: Seconds between two requests, about.
        number: Makes each user different, and each run alike.
    """

    def __init__(self, name: str, webs: Sequence[str], tally: Tally, *, pause: float, number: int) -> None:
        self.name = name
        self.accepted: dict[str, Upload] = {}
        self.unfinished: list[str] = []
        """Images whose fate the user does not know, because of an error."""
        self._tally = tally
        self._pause = pause
        self._dice = random.Random(number)
        self._browser = Browser(webs, tally, first=number)
        self._written: dict[str, int] = {}  # image -> the version that this user's own writes brought it to

    def live(self, stop: threading.Event) -> None:
        """Go on until told to stop."""
        while not stop.is_set():
            image_id = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
            try:
                self._one_image(image_id, stop)
            except Exception as error:  # noqa: BLE001 - whatever it was, the tour's last invariant tells of it
                self.unfinished.append(f"{image_id} of {self.name}: {error!r}")
                stop.wait(self._pause)
        self._browser.close()

    def _one_image(self, image_id: str, stop: threading.Event) -> None:
        new = {"id": image_id, "owner": self.name, "title": f"Evening {image_id[:4]}"}
        self._expect(self._ask("POST", "/images", new), {201})
        self._written[image_id] = 0
        self._look(image_id)
        self._upload(image_id)
        self._look(image_id)
        self._list()
        self._look_around()
        if self._dice.random() < 0.25:
            self._upload(image_id)  # a change of mind, perhaps too late
            self._look(image_id)
        self._timeline()
        if self._wait(image_id, stop):
            self._result(image_id)
            if self._dice.random() < 0.25:
                self._expect(self._ask("POST", f"/images/{image_id}/upload?owner={self.name}"), {409})
        self._list()

    def _ask(
        self, method: str, path: str, body: object = None, kind: str = "", patience: float | None = None
    ) -> Answer:
        SYSTEM.sleep(self._pause * self._dice.uniform(0.5, 1.5))
        return self._browser.ask(method, path, body, kind=kind, patience=patience)

    def _expect(self, answer: Answer, statuses: set[int]) -> Answer:
        if answer.status not in statuses:
            self._tally.note(self._tally.wrong, f"answer {answer.status} to {self.name}: {answer.data}")
            raise Failed(f"unexpected answer {answer.status}")
        return answer

    # ------------------------------------------------------------------------------------------------------- writing

    def _upload(self, image_id: str) -> None:
        """Upload a new picture; the application may say that the image is processed already."""
        answer = self._expect(self._ask("POST", f"/images/{image_id}/upload?owner={self.name}"), {200, 409})
        if answer.status == 409:
            return
        jpeg = sample(self._dice.randrange(1_000_000))
        if self._browser.upload(answer.data["url"], answer.data["fields"], jpeg) != 201:
            raise Failed("the store refused an upload")
        token = {"token": answer.data["token"]}
        answer = self._expect(self._ask("POST", f"/images/{image_id}/confirm?owner={self.name}", token), {200, 409})
        if answer.status == 200:
            self.accepted[image_id] = Upload(image_id, self.name, jpeg)
            self._written[image_id] = 1
            if self._dice.random() < 0.2:  # as after a lost answer
                self._expect(self._ask("POST", f"/images/{image_id}/confirm?owner={self.name}", token), {200})

    # ------------------------------------------------------------------------------------------------------- reading

    def _look(self, image_id: str) -> int:
        """Read one image, and compare it with what this user wrote."""
        answer = self._ask("GET", f"/images/{image_id}?owner={self.name}", kind="image")
        version = int(answer.data["version"]) if answer.status == 200 else -1
        self._compare(image_id, version, "image")
        return version

    def _list(self) -> None:
        """Read the list of this user's images, and compare the newest with what this user wrote."""
        answer = self._expect(self._ask("GET", f"/images?owner={self.name}", kind="list"), {200})
        versions = {each["id"]: int(each["version"]) for each in answer.data["images"]}
        for image_id in list(self._written)[-10:]:
            self._compare(image_id, versions.get(image_id, -1), f"list from {answer.source}")

    def _look_around(self) -> None:
        """See what others have made lately."""
        answer = self._expect(self._ask("GET", "/images", kind="list"), {200})
        lately = answer.data["images"][:12]
        for each in self._dice.sample(lately, min(4, len(lately))):
            self._ask("GET", f"/images/{each['id']}?owner={self.name}", kind="image")

    def _compare(self, image_id: str, version: int, where: str) -> None:
        written = self._written[image_id]
        self._tally.compare(
            good=version >= written,
            what=f"{self.name} wrote version {written} of {image_id}, the {where} had {version}",
        )

    def _timeline(self) -> None:
        """Read this user's timeline. Its shard may be down: then this user sees an error, and nobody else does."""
        try:
            self._expect(
                self._ask("GET", f"/users/{self.name}/timeline", kind=f"timeline of {self.name}", patience=0.8), {200}
            )
        except Failed:
            return  # counted; the user goes on with something else

    def _wait(self, image_id: str, stop: threading.Event) -> bool:
        """Look again and again until the image is processed; a user who is told to stop does not wait."""
        until = SYSTEM.monotonic() + 3.0
        while self._look(image_id) < 2:
            if stop.is_set() or SYSTEM.monotonic() > until:
                return False
        return True

    def _result(self, image_id: str) -> None:
        """Fetch the result by its private link, and see whether it is the sepia of what was uploaded."""
        link = self._expect(self._ask("GET", f"/images/{image_id}/result?owner={self.name}"), {200})
        status, content = self._browser.download(link.data["url"])
        if status != 200 or content != sepia(self.accepted[image_id].jpeg):
            self._tally.note(self._tally.wrong, f"the result of {image_id} is not the sepia of its last upload")


class Crowd:
    """All users together.

    Args:
        names: One for each user.
        webs: The addresses of the web processes.
        tally: Where everything is counted.
        pause: Seconds between two requests of one user, about.
    """

    def __init__(self, names: Sequence[str], webs: Sequence[str], tally: Tally, *, pause: float) -> None:
        self.users = [User(name, webs, tally, pause=pause, number=index) for index, name in enumerate(names)]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Let them in."""
        self._threads = [start_thread(user.live, self._stop, name=f"imagery-{user.name}") for user in self.users]

    def stop(self, timeout: float = 20.0) -> bool:
        """Let each finish what it has begun. Returns whether all did."""
        self._stop.set()
        until = SYSTEM.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - SYSTEM.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def accepted(self) -> list[Upload]:
        """Every image that was accepted."""
        return [upload for user in self.users for upload in user.accepted.values()]

    @property
    def unfinished(self) -> list[str]:
        """Every image whose fate its user does not know."""
        return [each for user in self.users for each in user.unfinished]
