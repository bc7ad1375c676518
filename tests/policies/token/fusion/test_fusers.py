"""Every fusion on vocabularies that fit on a page."""

from __future__ import annotations

import numpy as np
import pytest

from policies.token.fusion.config import SafeConfig
from policies.token.fusion.lookup import Lookup, candidates
from policies.token.fusion.rows import Fused, row_of
from policies.token.fusion.safe import stands
from policies.token.fusion.sampling import SamplingParams, best, choose, nucleus
from policies.token.gac import GaCFuser, mean
from policies.token.packllm import LogitFuser, losses, optimal, similar
from policies.token.unite import UniTeFuser
from runtime.rng import gumbel, token_keys
from runtime.types.outputs import Distribution
from runtime.types.spans import TokenChoice
from runtime.vocab.union import END_KEY, Union
from tests.support.models.tiny_vocabularies import CAT, DOG, rows, shares, union

BOTH = union(cat=CAT, dog=DOG)
EQUAL = {"cat": 1.0, "dog": 1.0}
LOOKUP = Lookup(BOTH, {"cat": CAT, "dog": DOG})


def test_the_same_bytes_are_one_key_and_every_end_is_the_same() -> None:
    assert BOTH.keys("cat", np.array([1])) == BOTH.keys("dog", np.array([4]))
    assert BOTH.keys("cat", np.array([CAT.eos_ids[0]])) == END_KEY
    assert BOTH.keys("dog", np.array([DOG.eos_ids[0]])) == END_KEY
    assert BOTH.tokens[BOTH.key(b" ca")] == b" ca"
    assert BOTH.ids("dog", BOTH.key(b" dog")) == [4]
    assert BOTH.ids("cat", BOTH.key(b" ca")) == []


def test_gac_is_the_weighted_mean_over_the_union() -> None:
    result = rows(
        BOTH,
        cat=(CAT, {" cat": 0.5, " dog": 0.3, "": 0.2}),
        dog=(DOG, {" dog": 0.6, " ca": 0.4}),
    )
    # dog: (0.3 + 0.6) / 2, cat: 0.5 / 2, ca: 0.4 / 2, end: 0.2 / 2
    assert shares(mean(result, {"cat": 0.5, "dog": 0.5}), BOTH) == pytest.approx(
        {" dog": 0.45, " cat": 0.25, " ca": 0.2, "": 0.1}
    )
    # weights 3 : 1
    heavy = GaCFuser(BOTH, {"cat": 3.0, "dog": 1.0}).fuse(result)
    assert shares(heavy, BOTH)[" cat"] == pytest.approx(0.375)
    assert shares(heavy, BOTH)[" dog"] == pytest.approx(0.375)


def test_gac_counts_whole_rows_like_short_ones() -> None:
    short = rows(BOTH, cat=(CAT, {" cat": 0.5, " dog": 0.5}), dog=(DOG, {" dog": 1.0}))
    long = {n: row for n, row in short.items()}
    filler = rows(BOTH, cat=(CAT, {"a": 1e-9}))["cat"]
    many = 5000
    long["cat"] = type(filler)(
        np.concatenate([long["cat"].ids, np.repeat(filler.ids, many)]),
        np.concatenate([long["cat"].keys, np.repeat(filler.keys, many)]),
        np.concatenate([long["cat"].logprobs, np.repeat(filler.logprobs, many)]),
    )
    half = {"cat": 0.5, "dog": 0.5}
    result = shares(mean(long, half), BOTH)
    assert result[" dog"] == pytest.approx(shares(mean(short, half), BOTH)[" dog"])
    assert result["a"] == pytest.approx(0.5 * many * 1e-9)


def test_a_gate_is_sure_above_its_threshold_only() -> None:
    fuser = GaCFuser(BOTH, EQUAL, gate="cat", threshold=0.5)
    assert fuser.sure(rows(BOTH, cat=(CAT, {" cat": 0.51, " dog": 0.49}))["cat"])
    assert not fuser.sure(rows(BOTH, cat=(CAT, {" cat": 0.5, " dog": 0.5}))["cat"])


def test_unite_softmaxes_over_the_union_of_the_best() -> None:
    result = rows(
        BOTH,
        cat=(CAT, {" cat": 0.5, " dog": 0.3, " the": 0.2}),
        dog=(DOG, {" ca": 0.6, " dog": 0.3, " do": 0.1}),
    )
    fuser = UniTeFuser(BOTH, EQUAL, LOOKUP, 1)
    # The union of each one's best: " cat" and " ca". The first lacks " ca" and would write it as
    # " " and more, whose logprob it has not returned; the second writes " cat" as " ca" first.
    space = CAT.ids_of[b" "]
    assert fuser.missing(result) == {"cat": [space]}
    result = rows(
        BOTH,
        cat=(CAT, {" cat": 0.5, " dog": 0.3, " the": 0.1, " ": 0.1}),
        dog=(DOG, {" ca": 0.6, " dog": 0.3, " do": 0.1}),
    )
    assert fuser.missing(result) == {}
    # cat: 0.5 and 0.1 -> 5/6, 1/6; dog: 0.6 for both -> 1/2, 1/2
    assert shares(fuser.fuse(result), BOTH) == pytest.approx(
        {" cat": (5 / 6 + 1 / 2) / 2, " ca": (1 / 6 + 1 / 2) / 2}
    )


def test_the_end_is_looked_up_as_all_of_a_members_eos() -> None:
    first, second = CAT.eos_ids[0], CAT.ids_of[b"."]
    union = Union({"cat": (CAT, (first, second), CAT.vocab_size), "dog": (DOG, DOG.eos_ids, 300)})
    fuser = UniTeFuser(union, EQUAL, Lookup(union, {"cat": CAT, "dog": DOG}), 1)
    result = rows(union, cat=(CAT, {" dog": 0.6, "": 0.1}), dog=(DOG, {"": 0.7, " dog": 0.3}))
    assert fuser.missing(result) == {"cat": [second]}
    result = rows(
        union,
        cat=(CAT, {" dog": 0.6, ".": 0.3, "": 0.1}),
        dog=(DOG, {"": 0.7, " dog": 0.3}),
    )
    assert fuser.missing(result) == {}
    # cat: dog 0.6, end 0.3 + 0.1; dog: 0.3 and 0.7
    assert shares(fuser.fuse(result), union) == pytest.approx({"": 0.55, " dog": 0.45})


def test_a_scored_token_is_a_candidate_though_nobody_proposed_it() -> None:
    result = rows(
        BOTH,
        cat=(CAT, {" cat": 0.6, " dog": 0.4}),
        dog=(DOG, {" ca": 0.8, " dog": 0.2}),
    )
    key = BOTH.key(b" dog")
    assert key in candidates(result, 1, key) and key not in candidates(result, 1)
    fused = GaCFuser(BOTH, EQUAL).fuse(result, key)
    assert shares(fused, BOTH)[" dog"] == pytest.approx(0.3)
    assert GaCFuser(BOTH, EQUAL).missing(result, BOTH.key(b" the")) == {"cat": [2]}


def test_packllm_mixes_logits() -> None:
    result = rows(
        BOTH,
        cat=(CAT, {" dog": 0.8, "": 0.2}),
        dog=(DOG, {" dog": 0.5, "": 0.5}),
    )
    fused = LogitFuser(BOTH, EQUAL, LOOKUP, 2).fuse(result)
    # sqrt(0.8 * 0.5) : sqrt(0.2 * 0.5) = 2 : 1
    assert shares(fused, BOTH) == pytest.approx({" dog": 2 / 3, "": 1 / 3})


def test_packllm_weights_by_loss() -> None:
    assert similar([1.0, 2.0], 1.0) == pytest.approx([np.e / (np.e + 1), 1 / (np.e + 1)])
    sure, wrong = np.log([0.9, 0.1]), np.log([0.2, 0.8])
    # One token, and the first candidate is right: whoever is wrong gets nothing.
    assert optimal([np.stack([wrong, sure])], [0], 20).tolist() == [0.0, 1.0]
    # Each is right once: both are needed, as much of each.
    both = [np.stack([sure, wrong]), np.stack([wrong, sure])]
    symmetric = [np.stack([sure, np.log([0.1, 0.9])]), np.stack([np.log([0.1, 0.9]), sure])]
    assert optimal(symmetric, [0, 0], 20).tolist() == [0.5, 0.5]
    weights = optimal(both, [0, 0], 20)
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()


def test_losses_are_of_the_text_that_all_could_judge() -> None:
    def read(*tokens: tuple[bytes, float | None]) -> list[TokenChoice]:
        return [TokenChoice(data, logprob) for data, logprob in tokens]

    words = read((b"", None), (b"the", -2.0), (b" cat", -1.0))
    pieces = read((b"", None), (b"t", -4.0), (b"he", -0.5), (b" cat", -2.5))
    assert losses([words, pieces], 2) == [1.5, 3.5]
    # Without BOS nothing is known of "th": 5 bytes are left, a third of "the" and half of "he".
    bare = read((b"th", None), (b"e cat", -3.0))
    assert losses([words, pieces, bare], 2) == pytest.approx([1 + 2 / 3, 2.5 + 0.25, 3.0])
    # A text of one token is no evidence at all.
    assert losses([read((b"", None), (b"the", -2.0)), read((b"the", None))], 1) == [0.0, 0.0]
    assert losses([read((b"", None)), read((b"", None))], 0) == [0.0, 0.0]


def test_greedy_takes_the_most_probable_and_the_lowest_key_of_equals() -> None:
    fused = Fused(np.array([3, 5, 9]), np.log([0.3, 0.35, 0.35]))
    keys = np.zeros(10, dtype=np.uint64)
    assert choose(fused, SamplingParams(0.0, 1.0, 0), 0, keys) == 5
    assert [key for key, _ in best(fused, 2)] == [5, 9]


def test_draws_follow_the_distribution_and_do_not_depend_on_who_else_is_a_candidate() -> None:
    tokens = [b"a", b"b", b"c"]
    keys = token_keys(tokens)
    fused = Fused(np.arange(3), np.log([0.2, 0.5, 0.3]))
    drawn = [choose(fused, SamplingParams(1.0, 1.0, 7), place, keys) for place in range(4000)]
    counts = np.bincount(drawn, minlength=3) / 4000
    assert counts == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    two = Fused(np.array([1, 2]), np.log([0.5, 0.3]))
    for place, key in enumerate(drawn[:200]):
        if key != 0:
            assert choose(two, SamplingParams(1.0, 1.0, 7), place, keys) == key
    cold = [choose(fused, SamplingParams(0.25, 1.0, 7), place, keys) for place in range(4000)]
    shares = np.array([0.2, 0.5, 0.3]) ** 4
    assert np.bincount(cold, minlength=3) / 4000 == pytest.approx(shares / shares.sum(), abs=0.03)


def test_noise_is_keyed_by_seed_place_and_text() -> None:
    keys = token_keys([b"a", b"b"])
    assert (gumbel(1, 2, keys) == gumbel(1, 2, keys)).all()
    assert gumbel(1, 2, keys[1:])[0] == gumbel(1, 2, keys)[1]
    others = [gumbel(2, 2, keys), gumbel(1, 3, keys)]
    assert all((gumbel(1, 2, keys) != other).all() for other in others)


def test_a_nucleus_is_the_smallest_set_that_holds_the_mass() -> None:
    scores = np.log([0.1, 0.6, 0.3])
    assert nucleus(scores, 1.0).tolist() == [0, 1, 2]
    assert nucleus(scores, 0.7).tolist() == [1, 2]
    assert nucleus(scores, 0.5).tolist() == [1]


def test_safe_fuses_at_borders_where_members_differ() -> None:
    safe = SafeConfig()
    result = rows(BOTH, cat=(CAT, {" cat": 0.7, " dog": 0.3}), dog=(DOG, {" dog": 0.6, " ca": 0.4}))
    cat = BOTH.key(b" cat")
    border = {"cat": True, "dog": True}
    # The other would write " dog", and the mean for " cat" is 0.35.
    assert not stands(cat, result, "cat", border, safe)
    assert stands(cat, result, "cat", {"cat": True, "dog": False}, safe)
    assert stands(BOTH.key(b" dog"), result, "cat", border, safe)  # the other agrees
    assert stands(cat, result, "cat", border, SafeConfig(agreement=0.34))
    assert stands(cat, {"cat": result["cat"]}, "cat", border, safe)


def test_an_id_that_a_row_reports_twice_counts_once() -> None:
    vocabulary = union(a=CAT)
    result = Distribution(np.array([0, 1, 0]), np.log(np.array([0.6, 0.4, 0.6], dtype=np.float32)))
    row = row_of(result, vocabulary, "a", no_end=False)
    assert row.ids.tolist() == [0, 1] and row.of_key(int(row.keys[0])) == pytest.approx(0.6)
