"""Addresses and their checksums, against the test vectors of whoever specified them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars.wallet import base58, bech32
from sidecars.wallet.addresses import CHAIN_OF, CHAINS, Network, OtherChainError, read_address
from sidecars.wallet.base58 import AddressError
from sidecars.wallet.bech32 import Encoding

TESTS = Network.TEST | Network.SIGNET | Network.REGTEST
PUBLIC_TESTS = Network.TEST | Network.SIGNET
EVERYWHERE = Network.MAIN | TESTS

# BIP 173, "Test vectors": valid Bech32.
BECH32: Final = (
    "A12UEL5L",
    "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
    "11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j",
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    "?1ezyfcl",
)
# BIP 350, "Test vectors for Bech32m": valid.
BECH32M: Final = (
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
)
# Both BIPs: not valid, and why.
NOT_BECH32: Final = (
    *("\x201nwldj5", "\x7f1axkwrx", "\x801eym55h"),
    "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
    *("pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "de1lg7wt\xff", "A1G7SGD8", "10a06t8", "1qzzfhee"),
    *("\x201xj0phk", "\x7f1g6xzxy", "\x801vctc34"),
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    *("qyrz8wqd2c9m", "1qyrz8wqd2c9m", "y1b0jsk6g", "lt1igcx5c0", "in1muywd", "mm1crxm3i", "au1s5cgom", "M1VUXWEZ"),
    *("16plkw9", "1p2gdwpf"),
)
# BIP 350, "Test vectors for v0-v16 native segregated witness addresses": each with its scriptPubKey.
WITNESSES: Final = {
    "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4": "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7": (
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"
    ),
    "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y": (
        "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6"
    ),
    "BC1SW50QGDZ25J": "6002751e",
    "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs": "5210751e76e8199196d454941c45d1b3a323",
    "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy": (
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433"
    ),
    "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c": (
        "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433"
    ),
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0": (
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    ),
}
# The invalid ones of BIP 350 and BIP 173, with what is wrong, in words of ours.
NOT_WITNESSES: Final = {
    "tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut": "character that base 58 has not",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd": "wrong checksum",
    "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf": "wrong checksum",
    "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL": "wrong checksum",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh": "wrong checksum",
    "tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47": "wrong checksum",
    "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4": "character that Bech32 has not",
    "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R": "version from 0 to 16",
    "bc1pw5dgrnzv": "2 to 40 bytes",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav": "2 to 40 bytes",
    "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P": "20 or 32 bytes",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq": "mix upper and lower case",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf": "padding",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j": "padding",
    "bc1gmk9yu": "version from 0 to 16",
    "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty": "character that base 58 has not",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5": "wrong checksum",
    "bc1rw5uspcuh": "2 to 40 bytes",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7": "mix upper and lower case",
    # BIP 173 had Bech32 for all versions.
    "bc1zw508d6qejxtdg4y5r3zarvaryvg6kdaj": "Bech32m",
}
# Bitcoin Core, src/test/data/key_io_valid.json, with the networks named there: base 58, and every prefix.
KEY_IO: Final = {
    "1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mo": Network.MAIN,
    "36j4NfKv6Akva9amjWrLG6MuSQym1GuEmm": Network.MAIN,
    "1FjL87pn8ky6Vbavd1ZHeChRXtoxwRGCRd": Network.MAIN,
    "3BZECeAH8gSKkjrTx8PwMrNQBLG18yHpvf": Network.MAIN,
    "mzK2FFDEhxqHcmrJw1ysqFkVyhUULo45hZ": TESTS,
    "2NC2hEhe28ULKAJkW5MjZ3jtTMJdvXmByvK": TESTS,
    "n4fajahJrAuKbN7uNsKjLjQkz9Qn5ewJXQ": TESTS,
    "2MxFajLApXpYk4VodBSZSt7rw8y4ryABkfA": TESTS,
    "bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv": Network.MAIN,
    "bc1qyucykdlhp62tezs0hagqury402qwhk589q80tqs5myh3rxq34nwqhkdhv7": Network.MAIN,
    "bc1p83n3au0rjylefxq2nc2xh2y4jzz4pm6zxj4mw5pagdjjr2a9f36s6jjnnu": Network.MAIN,
    "tb1qcrh3yqn4nlleplcez2yndq2ry8h9ncg3qh7n54": PUBLIC_TESTS,
    "tb1rx9n9g37az8mu236e5jpxdt0m67y4fuq8rhs0ss3djnm0kscfrwvq0ntlyg": PUBLIC_TESTS,
    "bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9": Network.REGTEST,
    "bcrt1pfwxjqvtt4tcxrtdluukfmy2dv7xd2qzdfy6kajv5nwn4yam3wxkq3553uh": Network.REGTEST,
    "bcrt1sx6p8njlx7h9mc2agz4yg82dzne23050ncq72cneeecez2pst8mahn8xecsf8g6hzx94420": Network.REGTEST,
}
# From the same file: keys, which are no addresses; and from key_io_invalid.json.
NOT_KEY_IO: Final = (
    *("5JuW2AMDYu4xVwRG9DZW18VbzQrGcd5RCgb99sS6ehJsNQXu5b9", "L5nJeqKmpHp4P7F8ZYyjwc5a7P4d8EabuGAzfGJk7yC1BJyzNaEd"),
    *("92ZdE5HoLafywnTBbzPxbvRmp75pSfzvdU3XaZGh1cToipgdHVh", "cV83kKisF3RQSvXbUCm9ox3kaz5JjEUBWcx8tNydfGJcyeUxuH47"),
    *("", "x", "8iVk9nLM3nYwRuwypjy9NK5rsuZH7BbrQRZ1pgcQmvMnjAgRXD", "KzNbAQ4mexfAxa6RKBzHQqfoTycaeWpv2p"),
    "1GAdfviErV2Ew95FPtZyikz2qGP3gyCB6Hyu94sedAkPpA523m3fQwps9YKUZkKgQckGPKhRsFR",
    "37G2kMDLpmWVhimxRdzwNfE8JFvWXnJYnVcXeeGrek2qumdJuK7XArcVVpRtLLjRra3t64BEPF2",
    *("2UVPFpGYnLHJezFzjUo42our6PMEoozzRdM", "2MygHQjE1U33q3LSC53p69YqFjP8PihumJAF", "bcrt1r2qxpwuge"),
    "bt1pq65rzej5glw3ra79gav6fqnx4haa0z257qr3mc8cggkefahmgvyseufhc0",
    "tb13hty4qmumlwpp6chxjvcyzza4duqgtmxw3xhm3u9ahj4nyhtwz8eq7ynrj4",
    "bc10uexgzna2dpfk0vjt35srz6a27ps6m0l89jweznt83n2sqn2fx4hvn9ym5af8wut34sfrqhk3",
    *("tb1qum6uh0pt4q253qaf520929737v63w5gf", "bc1qdsuzmn04k2z8vryw8l4dj8m5ygqgnne5n"),
    *("bcrt1qzwmyj0z924g7fzs5yvnrkc43y76RVyr2lh5t4r", "bc1qpu6d26mrulzetu4jqhd7rsunv9aqru26f5c4j8"),
    *("tb1ly0q7p", "tb1dclvmr", "tb1z7gmh0v6pc30z4xum76lmw8w86yswrlmw"),
)
# EIP-55, its tests, and its example written without a checksum, which is allowed.
EIP_55: Final = (
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
)
# CashAddr's specification, "Examples of address translation": the old form, and the new one.
CASH: Final = {
    "1BpEi6DfDAUFd7GtittLSdBeYJvcoaVggu": "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a",
    "1KXrWXciRDZUpQwQmuM1DbwsKDLYAYsVLR": "bitcoincash:qr95sy3j9xwd2ap32xkykttr4cvcu7as4y0qverfuy",
    "16w1D5WRVKJuZUsSRzdLp9w3YGcgoxDXb": "bitcoincash:qqq3728yw0y47sqn6l2na30mcw6zm78dzqre909m2r",
    "3CWFddi6m4ndiGyKqzYvsFYagqDLPVMTzC": "bitcoincash:ppm2qsznhks23z7629mms6s4cwef74vcwvn0h829pq",
}
# CIP-19, "Test vectors": types 0, 6 and 7 on the main network, and 6 on a test network.
CARDANO_MAIN: Final = (
    "addr1qx2fxv2umyhttkxyxp8x0dlpdt3k6cwng5pxj3jhsydzer3n0d3vllmyqwsx5wktcd8cc3sq835lu7drv2xwl2wywfgse35a3x",
    "addr1vx2fxv2umyhttkxyxp8x0dlpdt3k6cwng5pxj3jhsydzers66hrl8",
    "addr1w8phkx6acpnf78fuvxn0mkew3l0fd058hzquvz7w36x4gtcyjy7wx",
)
CARDANO: Final = {
    **dict.fromkeys(CARDANO_MAIN, Network.MAIN),
    "addr_test1vz2fxv2umyhttkxyxp8x0dlpdt3k6cwng5pxj3jhsydzerspjrlsz": TESTS,
}
# One of each other chain, from its documentation.
OTHERS: Final = {
    "XRP": ("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "r4FTvnahbUfhe1WK2EK5Jz4cNvdFvT8Dzt"),
    "DOGE": ("DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L",),
    "LTC": ("LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1", "ltc1qg42tkwuuxefutzxezdkdel39gfstuap288mfea"),
    "DOT": ("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",),
    "SOL": ("So11111111111111111111111111111111111111112", "11111111111111111111111111111111"),
}


def script_of(witness: bech32.Witness) -> str:
    opcode = witness.version + (0x50 if witness.version else 0)
    return bytes([opcode, len(witness.program)]).hex() + witness.program.hex()


@pytest.mark.parametrize(("texts", "encoding"), [(BECH32, Encoding.BECH32), (BECH32M, Encoding.BECH32M)])
def test_bech32_is_read_and_written(texts: tuple[str, ...], encoding: Encoding) -> None:
    for text in texts:
        decoded = bech32.decode(text)
        assert decoded.encoding is encoding
        assert bech32.encode(decoded.prefix, decoded.values, encoding) == text.lower()


@pytest.mark.parametrize("text", NOT_BECH32)
def test_what_is_not_bech32_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        bech32.decode(text)


@pytest.mark.parametrize("text", WITNESSES)
def test_a_witness_address_is_the_script_that_the_bip_says(text: str) -> None:
    witness = bech32.decode_witness(text)
    assert script_of(witness) == WITNESSES[text]
    assert bech32.encode_witness(witness) == text.lower()
    assert read_address(text, "BTC").text == text.lower()


@pytest.mark.parametrize("text", NOT_WITNESSES)
def test_what_is_wrong_with_a_witness_address_is_told(text: str) -> None:
    with pytest.raises(AddressError, match=NOT_WITNESSES[text]):
        read_address(text, "BTC")


@pytest.mark.parametrize("text", KEY_IO)
def test_an_address_of_bitcoin_is_of_the_networks_that_bitcoin_core_says(text: str) -> None:
    assert read_address(text, "BTC") == (text, KEY_IO[text])
    if "1q" in text:
        assert read_address(text.upper(), "BTC").text == text


@pytest.mark.parametrize("text", NOT_KEY_IO)
def test_what_bitcoin_core_refuses_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        read_address(text, "BTC")


@pytest.mark.parametrize("text", EIP_55)
def test_the_capitals_of_an_ethereum_address_are_its_checksum(text: str) -> None:
    for currency in ("ETH", "USDT", "USDC", "DAI"):
        assert read_address(text, currency) == (text, EVERYWHERE)
    for unchecked in (text.lower(), "0x" + text[2:].upper()):
        assert read_address(unchecked, "ETH").text == text
    for at, char in enumerate(text[2:], 2):
        if char.isalpha():
            with pytest.raises(AddressError, match="EIP-55"):
                read_address(text[:at] + char.swapcase() + text[at + 1 :], "ETH")


@pytest.mark.parametrize(
    "text", ["0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0X" + "a" * 40, "0x" + "a" * 41, "0x" + "g" * 40]
)
def test_what_is_no_ethereum_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="40 hexadecimal digits"):
        read_address(text, "ETH")


@pytest.mark.parametrize("old", CASH)
def test_both_forms_of_a_bitcoin_cash_address_are_read(old: str) -> None:
    new = CASH[old]
    assert read_address(old, "BCH").text == old
    for text in (new, new.partition(":")[2], new.upper()):
        assert read_address(text, "BCH") == (new, Network.MAIN)
    hashed = base58.decode_check(old)
    assert bech32.decode_cash(new, ())[1:] == (0 if hashed[0] == 0 else 1, hashed[1:])
    for wrong in (
        new[:-1] + ("q" if new[-1] != "q" else "p"),
        new.replace("bitcoincash", "bchtest"),
        "bitcoincash:" + "q" * 42,
    ):
        with pytest.raises(AddressError):
            read_address(wrong, "BCH")


@pytest.mark.parametrize("text", CARDANO)
def test_a_cardano_address_is_read_with_its_network(text: str) -> None:
    assert read_address(text, "ADA") == (text, CARDANO[text])
    with pytest.raises(AddressError, match="checksum"):
        read_address(text[:-1] + ("q" if text[-1] != "q" else "p"), "ADA")


def test_a_cardano_address_keeps_to_its_header() -> None:
    """A stake address, the wrong network, and a length that is another type's."""
    content = bytes(28)
    for prefix, header, length in (("addr", 0xE1, 28), ("addr", 0x60, 28), ("addr", 0x01, 28), ("addr_test", 0x61, 28)):
        values = bech32.to_values(bytes([header]) + content[:length])
        with pytest.raises(AddressError, match="header"):
            read_address(bech32.encode(prefix, values, Encoding.BECH32), "ADA")
    with pytest.raises(AddressError, match="addr1"):
        read_address(bech32.encode("stake", [1] * 46, Encoding.BECH32), "ADA")


@pytest.mark.parametrize(
    ("currency", "text"), [(currency, text) for currency, texts in OTHERS.items() for text in texts]
)
def test_addresses_of_the_other_chains_are_read(currency: str, text: str) -> None:
    assert read_address(text, currency).text == text
    if currency != "SOL":
        for at in range(1, len(text)):
            other = "2" if text[at] != "2" else "3"
            with pytest.raises(AddressError):
                read_address(text[:at] + other + text[at + 1 :], currency)


def test_every_chain_refuses_every_other_chains_addresses_by_name() -> None:
    """But for BTC's old form, which is BCH's too: nothing in it tells them apart."""
    examples = {
        "BTC": ("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv", "36j4NfKv6Akva9amjWrLG6MuSQym1GuEmm"),
        "ETH": EIP_55,
        "BCH": tuple(CASH.values()),
        "ADA": CARDANO_MAIN,
        **OTHERS,
    }
    assert set(examples) == set(CHAINS)
    for currency, chain in CHAIN_OF.items():
        for other, texts in examples.items():
            for text in texts:
                if other != chain and (chain, text) != ("BCH", "36j4NfKv6Akva9amjWrLG6MuSQym1GuEmm"):
                    with pytest.raises(OtherChainError, match=rf"address of {other}, not of {chain}"):
                        read_address(text, currency)


def cash(prefix: str, values: Sequence[int]) -> str:
    """These 5-bit values with the checksum that CashAddr gives them, whatever they are."""
    bits = [ord(char) & 31 for char in prefix]
    left = bech32._polymod([*bits, 0, *values, *[0] * 8], bech32._CASH_GENERATOR, 35) ^ 1  # pyright: ignore[reportPrivateUsage]  There is no writer of CashAddr.
    return f"{prefix}:" + "".join(
        bech32._ALPHABET[value]  # pyright: ignore[reportPrivateUsage]  As above.
        for value in (*values, *[left >> 5 * (7 - at) & 31 for at in range(8)])
    )


def test_a_cash_address_of_nothing_but_its_checksum_is_refused() -> None:
    """Its checksum is right. So is that of one that is far too long, which is not worth the time to take it apart."""
    for text in (cash("bitcoincash", ()), cash("", ()), cash("bitcoincash", [1] * 1_000)):
        for currency in CHAINS:
            with pytest.raises(AddressError):
                read_address(text, currency)
    with pytest.raises(AddressError, match="128 characters"):
        read_address(cash("bitcoincash", [1] * 1_000), "BCH")


FIVE_BITS = st.lists(st.integers(0, 31), max_size=70)


@given(
    st.one_of(
        st.text(max_size=130),
        st.builds(cash, st.sampled_from(["bitcoincash", "bchtest", "x"]), FIVE_BITS),
        st.builds(
            bech32.encode,
            st.sampled_from(["bc", "tb", "ltc", "addr", "addr_test", "x"]),
            FIVE_BITS,
            st.sampled_from(Encoding),
        ),
        st.builds(base58.encode_check, st.binary(max_size=40)),
        st.builds(base58.encode_check, st.binary(max_size=40), st.just(base58.XRP_ALPHABET)),
    )
)
def test_whatever_is_given_is_an_address_or_is_refused(text: str) -> None:
    """With a right checksum too; and what is read is read again as itself."""
    for currency in CHAINS:
        try:
            address = read_address(text, currency)
        except AddressError:
            continue
        assert read_address(address.text, currency) == address


def test_base_58_is_read_and_written() -> None:
    """Leading zeros are kept, as many as there are."""
    for data in (b"", b"\0", b"\0\0\1", b"hello", bytes(25)):
        text = base58.encode(data)
        assert not text or base58.decode(text) == data
        assert base58.decode_check(base58.encode_check(b"\0" + data)) == b"\0" + data
    for text in ("", "0", "l", "1" * 129, "é"):
        with pytest.raises(AddressError):
            base58.decode(text)
    with pytest.raises(AddressError, match="too short"):
        base58.decode_check("11")
