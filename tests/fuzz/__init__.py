"""Hostile input, by the hundred: generators of cases, and the contract that every case is held to.

python -m tests.fuzz                    every case in this process: a table of what was tried and what came
python -m tests.fuzz --kinds flags      one kind; --sample: what run_tests.sh takes
python -m tests.fuzz --processes        thirty cases as real processes as well
python -m tests.fuzz --output FILE      the table as Markdown, too
"""
