"""Languages: what people call them in the names of files, and what a player calls them (BCP 47)."""

from typing import Final

from gallery.search import fold

UNDETERMINED: Final = "und"

# ISO 639-1, then 639-2 where there are two of them, then names: English first, for the label.
_TABLE: Final = """
af afr Afrikaans
am amh Amharic
ar ara Arabic العربية
az aze Azerbaijani
be bel Belarusian Беларуская
bg bul Bulgarian Български
bn ben Bengali
bs bos Bosnian Bosanski
ca cat Catalan Català
cs cze ces Czech Čeština Česky
cy wel cym Welsh
da dan Danish Dansk
de ger deu German Deutsch
el gre ell Greek Ελληνικά
en eng English
eo epo Esperanto
es spa Spanish Español Castellano
et est Estonian Eesti
eu baq eus Basque Euskara
fa per fas Persian Farsi فارسی
fi fin Finnish Suomi
fil Filipino Tagalog
fr fre fra French Français
ga gle Irish
gl glg Galician Galego
gu guj Gujarati
he heb Hebrew עברית
hi hin Hindi हिन्दी
hr hrv Croatian Hrvatski
hu hun Hungarian Magyar
hy arm hye Armenian
id ind Indonesian
is ice isl Icelandic Íslenska
it ita Italian Italiano
ja jpn Japanese 日本語
ka geo kat Georgian
kk kaz Kazakh
km khm Khmer
kn kan Kannada
ko kor Korean 한국어
ku kur Kurdish
la lat Latin
lo lao Lao
lt lit Lithuanian Lietuvių
lv lav Latvian Latviešu
mk mac mkd Macedonian Македонски
ml mal Malayalam
mn mon Mongolian
mr mar Marathi
ms may msa Malay
my bur mya Burmese
nb nob Norwegian Norsk Bokmål
ne nep Nepali
nl dut nld Dutch Nederlands Flemish
nn nno Nynorsk
no nor Norwegian
pa pan Punjabi
pl pol Polish Polski
ps pus Pashto
pt por Portuguese Português
ro rum ron Romanian Română
ru rus Russian Русский
si sin Sinhala
sk slo slk Slovak Slovenčina
sl slv Slovenian Slovene Slovenščina
sq alb sqi Albanian Shqip
sr srp Serbian Српски Srpski
sv swe Swedish Svenska
sw swa Swahili
ta tam Tamil
te tel Telugu
th tha Thai ไทย
tl tgl Tagalog
tr tur Turkish Türkçe
uk ukr Ukrainian Українська
ur urd Urdu
uz uzb Uzbek
vi vie Vietnamese
yi yid Yiddish
yue Cantonese 粵語
zh chi zho Chinese Mandarin 中文 汉语
"""
_LINES: Final = [line.split() for line in _TABLE.split("\n") if line]
_CODES: Final = {
    code: line[0] for line in reversed(_LINES) for code in line if code.isascii() and code.islower()
}
_NAMES: Final = {
    fold(name): line[0] for line in reversed(_LINES) for name in line if name not in _CODES
}
_LABELS: Final = {line[0]: next(name for name in line if name not in _CODES) for line in _LINES}
# What programs and sites write that no standard knows.
_SHORTHANDS: Final = {
    "chs": "zh-Hans",
    "cht": "zh-Hant",
    "sc": "zh-Hans",
    "tc": "zh-Hant",
    "big5": "zh-Hant",
    "pob": "pt-BR",
    "ptbr": "pt-BR",
    "brazilian": "pt-BR",
    "latino": "es-419",
    "simplified": "zh-Hans",
    "traditional": "zh-Hant",
    "简体": "zh-Hans",
    "繁體": "zh-Hant",
}
_LONG_SHORTHANDS: Final = {
    fold(word): tag for word, tag in _SHORTHANDS.items() if len(word) > 4 or not word.isascii()
}
_PLACES: Final = {
    "BR": "Brazil",
    "CA": "Canada",
    "CN": "China",
    "ES": "Spain",
    "FR": "France",
    "GB": "UK",
    "HK": "Hong Kong",
    "MX": "Mexico",
    "PT": "Portugal",
    "TW": "Taiwan",
    "419": "Latin America",
    "Cyrl": "Cyrillic",
    "Hans": "simplified",
    "Hant": "traditional",
    "Latn": "Latin",
}
_SCRIPTS: Final = ("Cyrl", "Hans", "Hant", "Latn")


def language_by_name(word: str) -> str | None:
    """The tag of a language that people call so, in English or in itself."""
    folded = fold(word)
    return _NAMES.get(folded) or _LONG_SHORTHANDS.get(folded)


def language_by_code(word: str) -> str | None:
    """The tag of a language that is abbreviated so."""
    folded = fold(word)
    return _SHORTHANDS.get(folded) or _CODES.get(folded)


def with_place(tag: str, word: str) -> str | None:
    """The tag narrowed by a word for a country or a script; None if it is neither."""
    if "-" in tag:
        return None
    if word.title() in _SCRIPTS:
        return f"{tag}-{word.title()}"
    is_place = word == "419" or (len(word) == 2 and word.isascii() and word.isalpha())
    return f"{tag}-{word.upper()}" if is_place else None


def label_of(tag: str) -> str:
    """What the language is called in English."""
    code, _, place = tag.partition("-")
    name = _LABELS.get(code, "")
    return f"{name} ({_PLACES.get(place, place)})" if place else name
