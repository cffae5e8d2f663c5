"""The formulas of titles and sentences, `$...$`, as HTML that needs no script: letters, accents, powers and indices."""

import html
import re

NAMED = """
alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ kappa κ lambda λ mu μ nu ν xi ξ pi π rho ρ
sigma σ tau τ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω
infty ∞ to → rightarrow → le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ sim ∼ times × cdot · pm ± propto ∝ in ∈ sum ∑ prod ∏
int ∫ partial ∂ nabla ∇ ell ℓ top ⊤ langle ⟨ rangle ⟩ mid | dots … ldots … cdots …
"""
SYMBOLS = {
    **dict(re.findall(r"(\S+) (\S)", NAMED)),
    **dict.fromkeys(("left", "right", "mathrm", "text", "mathbb", "mathcal", "operatorname", "rm", "!"), ""),
    **dict.fromkeys((",", ";", " ", "quad"), " "),
}
ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307"}
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[{}^_]|[^\\{}^_\s]|\s+")


def to_html(sentence: str) -> str:
    """The sentence, escaped, with its formulas set."""
    parts = re.split(r"(?<!\\)\$([^$]+)(?<!\\)\$", sentence)
    return "".join(_formula(part) if i % 2 else html.escape(part) for i, part in enumerate(parts))


def _formula(source: str) -> str:
    tokens = TOKEN.findall(source)
    done = []
    while tokens:
        done.append(_next(tokens))
    return f'<span class="math">{"".join(done)}</span>'


def _next(tokens: list[str]) -> str:
    """Set the first token, with its arguments, and take them off."""
    token = tokens.pop(0) if tokens else ""
    name = token.removeprefix("\\")
    if token == "{":
        done = []
        while tokens and tokens[0] != "}":
            done.append(_next(tokens))
        del tokens[:1]
        return "".join(done)
    if token in ("^", "_"):
        tag = "sup" if token == "^" else "sub"
        return f"<{tag}>{_next(tokens)}</{tag}>"
    if not token.startswith("\\"):
        return f"<i>{token}</i>" if token.isalpha() else html.escape(token.replace("-", "−"))
    if name in ("sqrt", "frac", *ACCENTS):
        while tokens and tokens[0].isspace():
            del tokens[0]
        first = _next(tokens)
        if name == "sqrt":
            return f"√{_together(first)}"
        if name == "frac":
            return f"{_together(first)}/{_together(_next(tokens))}"
        return f"{first[:-4]}{ACCENTS[name]}</i>" if first.endswith("</i>") else first + ACCENTS[name]
    return html.escape(SYMBOLS.get(name, name))


def _together(formula: str) -> str:
    """In parentheses where it is more than one letter."""
    return formula if len(re.sub("<[^>]*>", "", formula)) == 1 else f"({formula})"
