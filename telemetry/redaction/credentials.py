"""Credentials that are known by their form, such as the prefixes of well-known services.

As in `text`, every pattern matches in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from phasebus.telemetry.redaction.known import MASK

_COMMON: Final = re.compile(
    r"\b(?=[hAgyxdawsnprfltSeo])(?:"  # the first letter of any: most words end here
    r"hf_[A-Za-z0-9]{8,}+"  # Hugging Face
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}+"  # Amazon
    r"|(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,}+"  # GitHub
    r"|gl(?:pat|rt|cbt|dt|soat|ptt)-[\w-]{16,}+"  # GitLab
    r"|AIza[\w-]{20,}+|ya29\.[\w-]{16,}+"  # Google
    r"|x(?:ox[abposr]|app)-[\w-]{8,}+|hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]++"  # Slack
    r"|discord(?:app)?\.com/api/webhooks/[\w/-]++|api\.telegram\.org/bot[\w:-]++"
    r"|(?:webhook\.office\.com/webhookb2|outlook\.office(?:365)?+\.com/webhook)/[\w/@-]++"
    r"|hooks\.zapier\.com/hooks/catch/[\w/-]++"
    r"|(?<!-)sk-[A-Za-z0-9_-]{16,}+"  # OpenAI and others
    r"|npm_[A-Za-z0-9]{30,}+|pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"  # npm, Airtable
    r"|(?:gsk_|nvapi-|pypi-|r8_|rpa_|fw_|xai-|pplx-)[\w-]{20,}+"  # Groq, NVIDIA, PyPI, Replicate and others
    r"|(?:[sr]k_(?:live|test)|whsec|do[opr]_v1|dckr_(?:pat|oat)|lsv2_[ps][tk])_\w{16,}+"  # Stripe, Docker and others
    r"|SG\.[\w-]{16,}+\.[\w-]{16,}+|hv[sbr]\.[\w-]{20,}+"  # SendGrid, HashiCorp Vault
    r"|(?:AGE-SECRET-KEY-1|ATATT3)\w{16,}+|tskey-\w++-[\w-]{16,}+|dapi[0-9a-f]{32}\b"  # age, Atlassian, Databricks
    r"|(?<!-)eyJ[\w-]{6,}+\.[\w-]{4,}+\.[\w-]*+)"  # JSON Web Token
)

_OTHER_SIGNS: Final = (
    "secret_", "ntn_", "lin_api_", "figd_", "phc_", "phr_", "phs_", "phx_", "sbp_", "glsa_", "glc_", "shpat_", "shpca_",
    "shppa_", "shpss_", "sntrys_", "sntryu_", "CCIPAT_", "bkua_", "nfp_", "pcsk_", "tgp_v1_", "wandb_v1_", "pscale_",
    "jina_", "NRAK-", "sq0", "csk-", "tvly-", "pul-", "dp.", "dt0", "key-", "K10",
)  # fmt: skip
"""A text with a credential of `_OTHERS` has one of them: most texts are not searched for it."""

_OTHERS: Final = re.compile(
    r"\b(?:(?:secret_(?=[A-Za-z]*+[0-9])|ntn_)[A-Za-z0-9]{32,}+"  # Notion
    r"|(?:lin_api|figd|ph[crsx]|sbp|gl(?:sa|c)|shp(?:at|ca|pa|ss)|sntry[su])_\w{20,}+"  # Linear, Figma, PostHog, Grafana …
    r"|(?:CCIPAT|bkua|nfp|pcsk|tgp_v1|wandb_v1)_\w{20,}+"  # CircleCI, Buildkite, Netlify, Pinecone, Together, W&B
    r"|pscale_(?:tkn|pw|oauth)_[\w.-]{20,}+|jina_[0-9a-f]{32}\w*+|NRAK-[A-Z0-9]{20,}+"  # PlanetScale, Jina, New Relic
    r"|(?:sq0(?:atp|csp)|csk|tvly|pul)-[\w-]{20,}+|dp\.(?:pt|st|ct|sa)\.\w{20,}+"  # Square, Cerebras, Tavily, Pulumi, Doppler
    r"|dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.\w{20,}+|key-[0-9a-f]{32}\b|K10[0-9a-f]{32,}+::\w++:[\w.-]++)"  # Dynatrace, Mailgun, K3s
)


def without_credentials(text: str, found: Callable[[str], None]) -> str:
    """Return `text` with the credentials masked; `found` receives each."""

    def masked(match: re.Match[str]) -> str:
        found(match[0])
        return MASK

    text = _COMMON.sub(masked, text)
    for sign in _OTHER_SIGNS:
        if sign in text:
            return _OTHERS.sub(masked, text)
    return text
