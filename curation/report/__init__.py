"""`report.html`: what a run measured and decided, in one file that needs no network.

gather    the table, with the scores that earlier rules stashed
pack      its columns as the page reads them
pictures  which clips' previews go into the page
phrases   what the captions say most
run_facts the run: time, machine, the step that cost most, in words
write     the page, out of the files in `page/`
"""
