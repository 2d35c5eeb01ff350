"""Imagery: an image application that keeps answering while its parts fail.

A user creates a process, uploads a JPEG straight to the store, and a worker turns it sepia. Read it in this order:

* `model`: the rows, and which of them live where
* `transitions`: created -> uploaded -> processed, each step conditional and repeatable
* `services`: every part of the outside world, through `resilient`
* `images`: what a user can do
* `worker`: what happens behind the queues
* `web`: the routes; `wsgi` is what a web server loads

`parts` starts all servers on this machine and `tour` breaks them one after another.
"""
