"""Generated clips judged as footage is: measured by the same operators, set beside what the model was trained on."""
