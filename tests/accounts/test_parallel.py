"""Tokens that are made at the same moment."""

import threading

from accounts.models import Token, digest
from tests import call_and_close


def test_a_key_that_gets_tokens_in_parallel_has_one_of_them(transactional_db):
    together = threading.Barrier(8)
    texts = []

    def issue() -> None:
        together.wait(10)
        texts.append(Token.objects.issue("u1")[1])

    threads = [threading.Thread(target=call_and_close, args=(issue,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert Token.objects.get().digest in map(digest, texts)
