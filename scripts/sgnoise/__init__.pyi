# The public names of the package, one import a line; __init__.py reads this list when it runs, and
# "# needs X" names the extra without which there is no such name.

from sgnoise import escape as escape  # needs torch
from sgnoise import fitting as fitting
from sgnoise import goodness as goodness
from sgnoise import gradients as gradients  # needs torch
from sgnoise import laws as laws
from sgnoise import noise as noise
from sgnoise import sde as sde
from sgnoise import stable as stable
from sgnoise.data import datasets as datasets  # needs workflow
from sgnoise.data import sources as sources  # needs workflow
from sgnoise.estimators import block_log_moment_alpha as block_log_moment_alpha
from sgnoise.estimators import characteristic_function_alpha as characteristic_function_alpha
from sgnoise.estimators import quantile_alpha as quantile_alpha
from sgnoise.fitting import Fit as Fit
from sgnoise.fitting import fit_gaussian as fit_gaussian
from sgnoise.fitting import fit_generalised_gaussian as fit_generalised_gaussian
from sgnoise.fitting import fit_laplace as fit_laplace
from sgnoise.fitting import fit_law as fit_law
from sgnoise.fitting import fit_normal_inverse_gaussian as fit_normal_inverse_gaussian
from sgnoise.fitting import fit_stable as fit_stable
from sgnoise.fitting import fit_stable_shared_alpha as fit_stable_shared_alpha
from sgnoise.fitting import fit_student_t as fit_student_t
from sgnoise.gradients import per_sample_gradients as per_sample_gradients  # needs torch
from sgnoise.gradients import sample_parameters as sample_parameters  # needs torch
from sgnoise.measuring import Probe as Probe  # needs torch
from sgnoise.measuring import measure as measure  # needs torch
from sgnoise.noise import mini_batch_noise as mini_batch_noise
from sgnoise.version import __version__ as __version__
