"""What a state of the federation scores on the rows held out: of the test, and of every client."""

from dataclasses import dataclass, replace
from functools import cached_property

from fedit.build import Job
from fedit.core.messages import State
from fedit.corpus import Held
from fedit.evaluate.loss import held_out_loss, overall
from fedit.evaluate.pairs import Ranking, held_out_ranking
from fedit.records import Record, fairness_record, loss_record, ranking_record
from fedit.train.dpo import Preference


@dataclass(frozen=True)
class HeldOut:
    """A job's held-out rows, made ready once, when they are first scored."""

    job: Job

    def score(self, state: State) -> Record:
        """Loss, or ranking of pairs, on all test rows, `by` group and by `clients`, and how even they are.

        The job's model holds the state afterwards.
        """
        test, validation = self._rows  # before the adapter is loaded
        self.job.adapted.load(state.public)
        scored: Record = {}
        if test.rows:
            whole, scored["by"] = self._groups(test)
            scored = whole | scored
        if self.job.plan.evaluation.clients:
            _, scored["clients"] = self._groups(validation)
        even = {key: fairness_record(scored[key]) for key in ("by", "clients") if key in scored}
        if even := {key: found for key, found in even.items() if found}:
            scored["fairness"] = even
        return scored

    @cached_property
    def _rows(self) -> tuple[Held, Held]:
        """The rows of test and clients, as the objective takes them."""
        job, how = self.job, self.job.plan.evaluation
        wanted = (job.test, job.validation if how.clients else Held((), [], []))
        test, validation = (
            replace(held, rows=job.trainer.ready(held.rows, how.batch)) for held in wanted
        )
        return test, validation

    def _groups(self, held: Held) -> tuple[Record, dict[str, Record]]:
        """All of these rows together, and by their groups."""
        job, batch = self.job, self.job.plan.evaluation.batch
        if isinstance(job.trainer.objective, Preference):
            ranked = held_out_ranking(
                job.trainer.objective, job.forward, held.rows, held.groups, batch
            )
            whole = ranking_record(sum(ranked.values(), Ranking()))
            return whole, {group: ranking_record(one) for group, one in ranked.items()}
        found = held_out_loss(job.forward, held.rows, held.groups, batch)
        return loss_record(overall(found)), {g: loss_record(loss) for g, loss in found.items()}
