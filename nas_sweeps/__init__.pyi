from .grid import Grid as Grid
from .grid import GridError as GridError
from .grid import load_grid as load_grid
from .grid import plan as plan
from .report.studies import studies as studies
from .report.tuned import tuned_against_default as tuned_against_default
from .sweep.run import run as run
from .tables import Frames as Frames
from .tables import attributed as attributed
from .tables import compact as compact
from .tables import edge_weights as edge_weights
from .tables import learning_curves as learning_curves
from .tables import load as load
from .tables import operation_weights as operation_weights
from .tables import sql as sql
from .tables import summarise as summarise

__version__: str
