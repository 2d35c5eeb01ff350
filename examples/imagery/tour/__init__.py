"""The tour: real pictures go through the whole application while its parts are broken one after another.

* `tally`: what users saw, phase by phase
* `browser`: one user's browser, with its cookies and its patience
* `users`: what the simulated users do, and how they check what they read
* `phases`: what is broken, how it is mended, and when it has recovered
* `invariants`: what must be true at the end
* `table`: the table, on the terminal and as Markdown
"""
