# Planning ten thousand jobs in two thirds of the time: Snakemake (9.27) works out again, for every job, what it knows already.
import functools
import gc

import smart_open
import snakemake.common
import snakemake.rules

smart_open.parse_uri = functools.cache(smart_open.parse_uri)  # of each job's script
# Which arguments an input function or resource takes.
snakemake.rules.get_function_params = functools.cache(snakemake.rules.get_function_params)
snakemake.common.get_function_params = snakemake.rules.get_function_params
gc.set_threshold(100_000)  # millions of objects, of which hardly any is garbage
