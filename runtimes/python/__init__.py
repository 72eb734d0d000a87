"""Run a bundle: the reference runtime (runtimes/SPEC.md says what every runtime must do).

    with edgekit.load("m.edge") as runtime:
        print(runtime.run(decode_image("photo.jpg")).label)

Importing this package loads numpy, msgspec and nothing heavier; ``load`` imports the one engine that it uses.
"""

from edgekit.runtime.adaptive import AdaptiveRuntime
from edgekit.runtime.image import decode_image
from edgekit.runtime.loading import load
from edgekit.runtime.options import RuntimeOptions
from edgekit.runtime.session import Runtime
from edgekit.runtime.thermal import linux_thermal_level

__all__ = ["AdaptiveRuntime", "Runtime", "RuntimeOptions", "decode_image", "linux_thermal_level", "load"]
