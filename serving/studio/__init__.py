"""The studio: a page over the models that a server offers, in the same process as its HTTP API.

page        the tabs put together, and the application with its guard's exceptions
desk        what every tab works with
texts       every text of the page, in English and Chinese
form        the values of the Generate form: to a request, and back from settings
marks       errors beside the control that they concern
generate    tab: the form, progress, preview, cancel
controls    the form's controls
painting    masks that were painted on a picture
showing     results and previews as the page shows them
endpoint    the function that programs call through Gradio's own client
library     tab: models and adapters, and whether they fit this machine
history     tab: what was made, settings back into the form, two side by side
runs        one command at a time as a process of its own, with its lines as they come
places      folders that the page may read from, and names that it may write to
funnel      how many clips a run has dealt with and why it rejects them, while it goes on and after
curate      tab: a folder through `curate`
train       tab: a config through `plan` and `train`
"""
