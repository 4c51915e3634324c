"""What papers call the presets, and which papers these are."""

from __future__ import annotations

from typing import TypeVar

from lightning_attack.attacks.base import Attack

AnyAttack = TypeVar("AnyAttack", bound=Attack)
_SEGMENTATION = "jia2023transegpgd"

PUBLISHED: dict[str, tuple[str, tuple[str, ...]]] = {
    "fgsm": ("FGSM", ("goodfellow2015fgsm",)),
    "bim": ("BIM", ("kurakin2017bim",)),
    "pgd": ("PGD", ("madry2018pgd",)),
    "masked_pgd": ("Masked PGD", ("gu2022segpgd", "croce2024sea")),
    "segpgd": ("SegPGD", ("gu2022segpgd",)),
    "cospgd": ("CosPGD", ("agnihotri2024cospgd",)),
    "js_pgd": ("JS-PGD", ("croce2024sea",)),
    "tsallis_pgd": ("TsallisPGD", ("matyasko2026tsallispgd",)),
    "eroseg": ("EroSeg", ("song2026eroseg",)),
    "rp_pgd": ("RP-PGD", ("zhang2025rppgd",)),
    "fspgd": ("FSPGD", ("park2025fspgd",)),
    "fia": ("FIA", ("wang2021fia",)),
    "naa": ("NAA", ("zhang2022naa",)),
    "bfa": ("BFA", ("wang2024bfa",)),
    "mi_fgsm": ("MI-FGSM", ("dong2018mi",)),
    "ni_fgsm": ("NI-FGSM", ("lin2020ni",)),
    "si_ni_fgsm": ("SI-NI-FGSM", ("lin2020ni",)),
    "di_fgsm": ("DI-FGSM", ("xie2019di",)),
    "ti_fgsm": ("TI-FGSM", ("dong2019ti",)),
    "vmi_fgsm": ("VMI-FGSM", ("wang2021vt",)),
    "vni_fgsm": ("VNI-FGSM", ("wang2021vt",)),
    "emi_fgsm": ("EMI-FGSM", ("wang2021emi",)),
    "pre_gradient_fgsm": ("Pre-gradient FGSM", ("wang2021emi",)),
    "pgn": ("PGN", ("ge2023pgn",)),
    "admix": ("Admix", ("wang2021admix",)),
    "ssa": ("SSA", ("long2022ssa",)),
    "dynamic_scaling": ("Dynamic scaling", ("gu2021transfer",)),
    "block_shuffle": ("Block shuffle", ("wang2024bsr",)),
    "local_regions": ("Local regions", ("dong2018mi",)),
    "bsr": ("BSR", ("wang2024bsr",)),
    "decowa": ("DeCowA", ("lin2024decowa",)),
    "sia": ("SIA", ("wang2023sia",)),
    "ops": ("OPS", ("guo2025ops",)),
    "us_mm": ("US-MM", ("wang2023usmm",)),
    "mef": ("MEF", ("qiu2026mef",)),
    "block_stretch": ("Block stretch", ("liu2025bss",)),
    "gra": ("GRA", ("zhu2023gra",)),
    "gi_fgsm": ("GI-FGSM", ("wang2022gi",)),
    "ie_fgsm": ("IE-FGSM", ("peng2023ie",)),
    "rap": ("RAP", ("qin2022rap",)),
    "ai_fgtm": ("AI-FGTM", ("zou2022aifgtm",)),
    "fgs2m": ("FGS2M", ("zhang2021staircase",)),
    "fgnm": ("FGNM", ("cheng2021fgnm",)),
    "smi_fgrm": ("SMI-FGRM", ("han2023fgrm",)),
    "dem": ("DEM", ("zou2020dem",)),
    "anda": ("ANDA", ("fang2024anda",)),
    "mask_block": ("MaskBlock", ("fan2022maskblock",)),
    "taig": ("TAIG-R", ("huang2022taig",)),
    "dta": ("DTA", ("yang2023dta",)),
    "fgsra": ("FGSRA", ("wang2024fgsra",)),
    "mig": ("MIG", ("ma2023mig",)),
    "mumodig": ("MuMoDIG", ("ren2025mumodig",)),
    "tass": ("TASS", ("he2023tass",)),
    "soft_transfer": ("Soft transfer", ("dong2018mi", "xie2019di", "dong2019ti")),
    "transfer_best": ("Best transfer", ("dong2018mi", "dong2019ti", "wu2020sgm", "wang2023bpa", "byun2023cfm")),
    "bpa": ("BPA", ("wang2023bpa",)),
    "linbp": ("LinBP", ("guo2020linbp",)),
    "sgm": ("SGM", ("wu2020sgm",)),
    "iaa": ("IAA", ("zhu2022iaa",)),
    "faug": ("FAUG", ("wang2024faug",)),
    "dhf": ("DHF", ("wang2023dhf",)),
    "ilpd": ("ILPD", ("li2023ilpd",)),
    "cfm": ("CFM", ("byun2023cfm",)),
    "tgr": ("TGR", ("zhang2023tgr",)),
    "pna": ("PNA", ("wei2022pna",)),
    "transegpgd": ("TranSegPGD", (_SEGMENTATION,)),
    "transegpgd_mi": ("TranSegPGD + MI", (_SEGMENTATION, "dong2018mi")),
    "transegpgd_ni": ("TranSegPGD + NI", (_SEGMENTATION, "lin2020ni")),
    "transegpgd_di": ("TranSegPGD + DI", (_SEGMENTATION, "xie2019di")),
    "transegpgd_ti": ("TranSegPGD + TI", (_SEGMENTATION, "dong2019ti")),
    "transegpgd_si": ("TranSegPGD + SI-MI", (_SEGMENTATION, "lin2020ni", "dong2018mi")),
    "transegpgd_vmi": ("TranSegPGD + VMI", (_SEGMENTATION, "wang2021vt")),
    "transegpgd_mi_di_ti": ("TranSegPGD + MI-DI-TI", (_SEGMENTATION, "dong2018mi", "xie2019di", "dong2019ti")),
    "transegpgd_strong": ("TranSegPGD + MI-DI-TI (wide DI)", (_SEGMENTATION, "dong2018mi", "xie2019di", "dong2019ti")),
    "transegpgd_best": (
        "TranSegPGD (best transfer)",
        (_SEGMENTATION, "dong2018mi", "dong2019ti", "wu2020sgm", "wang2023bpa", "byun2023cfm"),
    ),
    "transegpgd_dynamic": ("TranSegPGD (dynamic steps)", (_SEGMENTATION,)),
    "pi_fgsm": ("PI-FGSM", ("gao2020pi",)),
    "source_rotation": ("Source rotation", ("li2020ghost",)),
    "adaea": ("AdaEA", ("chen2023adaea",)),
    "cwa": ("MI-CWA", ("chen2024cwa",)),
    "aes": ("AES", ("yang2024aes", "dong2018mi", "xie2019di")),
    "svre": ("SVRE", ("xiong2022svre",)),
    "apgd": ("APGD", ("croce2020apgd",)),
    "sea": ("SEA", ("croce2024sea",)),
    "alma_prox": ("ALMA prox", ("rony2023alma",)),
    "dag": ("DAG", ("xie2017dag",)),
    "universal": ("Universal", ("moosavi2017universal", "metzen2017universal")),  # no preset: it needs a file
}
"""By preset: the display name, and the keys of its papers in `papers.bib`. A combination has those of its parts."""


def published(attack: AnyAttack, preset: str, name: str | None, display_name: str | None) -> AnyAttack:
    """The attack of a preset with what papers call it, and with its papers.

    Args:
        attack: the attack.
        preset: name of the preset.
        name: the name that the caller gave it; None = the preset's.
        display_name: likewise. An attack file has the preset's own, which does not outlive a new `name`.

    Example:
        >>> from lightning_attack.attacks import pgd
        >>> [attack.display_name for attack in (pgd(), pgd(name="mine"), pgd(name="mine", display_name="Mine"))]
        ['PGD', 'mine', 'Mine']
        >>> list(pgd().citations)
        ['madry2018pgd']
    """
    usual, attack._papers = PUBLISHED.get(preset, (None, ()))
    renamed = name is not None and name != preset
    attack._display_name = display_name if display_name and not (renamed and display_name == usual) else None
    if attack._display_name is None and not renamed:
        attack._display_name = usual
    return attack
