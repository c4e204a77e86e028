from . import epg as epg
from .estimation.fit import FitResult as FitResult
from .estimation.fit import Status as Status
from .estimation.fit import fit as fit
from .estimation.noise import Gaussian as Gaussian
from .estimation.solvers import Adam as Adam
from .estimation.solvers import LevenbergMarquardt as LevenbergMarquardt
from .estimation.solvers import LogLinear as LogLinear
from .estimation.solvers import Optax as Optax
from .io.dicom import read_dicom as read_dicom
from .io.maps import Maps as Maps
from .io.maps import write_maps as write_maps
from .io.nifti import read_mask as read_mask
from .io.nifti import read_nifti as read_nifti
from .io.series import ImageSeries as ImageSeries
from .models.base import SignalModel as SignalModel
from .models.base import simulate as simulate
from .models.decay import Decay as Decay
from .models.decay import MonoExponential as MonoExponential
from .models.fse import FSE as FSE
from .models.tissue import Tissue as Tissue
from .pipelines import t2star_map as t2star_map

__version__: str
