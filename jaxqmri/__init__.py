"""Maps of tissue properties from MR images, in JAX.

The public names are those of `__init__.pyi`. They are loaded on first use, so that importing the package, or asking the
command line for help, starts neither JAX nor a plotting library.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
