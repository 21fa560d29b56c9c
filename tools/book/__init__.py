"""The documentation site: pages of docs/ and of the READMEs, pages made of the code, and the check of what was built.

`nox -s docs` builds and checks it. What a page says of the code it takes from there as it is built: `source` cuts lines by
the name of what they define, `commands` reads options and fields, `api` names what is public, and `places` knows which page
is which file, so that a link between files becomes one between pages.
"""
