"""Which seeds are whose, so that what is selected and what is compared was never trained on."""

#: Trainings and searches draw their episodes' seeds below; validation, by which agents are selected, begins here.
VALIDATION_SEED = 500_000
#: The final comparison begins here.
HELD_OUT_SEED = 1_000_000
#: Episodes by which rewards, budgets and observations are chosen begin here, beyond all of the others.
MEASUREMENT_SEED = 2_000_000
