from __future__ import annotations

from online.company import ASK_AGAIN, LONELY, Company


def lonely(count: int) -> Company:
    """What is expected after so many reads that left alone."""
    company = Company()
    for _ in range(count):
        company.sent(1)
    return company


def test_company_is_expected_until_reads_were_alone_for_long() -> None:
    """The first reads of a connection are held, and the next behind `LONELY` of them but that is asked again."""
    assert all(lonely(count).expected() for count in range(LONELY))
    assert not lonely(LONELY + 1).expected()


def test_company_is_looked_for_again_now_and_then() -> None:
    """Of `ASK_AGAIN` lonely reads in a row one is held, however long that goes on."""
    company = lonely(LONELY)
    held = 0
    for _ in range(10 * ASK_AGAIN):
        held += company.expected()
        company.sent(1)
    assert held == 10


def test_company_that_came_once_is_expected_again() -> None:
    """Two reads that left together have the next ones held."""
    company = lonely(10 * LONELY + 1)
    company.sent(2)
    assert company.expected()
    company.sent(1)
    assert company.expected()
