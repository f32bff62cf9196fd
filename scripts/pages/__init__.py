"""Parts of the documentation that are generated from the code, and the marks that ask for them.

A page asks for a part with a comment on a line of its own, and for a file of the repository as a block of code:

    <!-- generated: NAME -->            <!-- file: PATH -->
    ...                                 ...
    <!-- end -->                        <!-- end -->

What stands between mark and end is committed, so that the page reads well on a code host:
`python -m scripts.pages` writes it, a test holds it to the code, and the site fills it again. A mark without an end is
filled in the site alone.
"""

from scripts.pages.marks import MARK, filled, written
from scripts.pages.parts import PARTS

__all__ = ["MARK", "PARTS", "filled", "written"]
