"""Ten lines of openai-python that ask several models as one (start `make serve` first)."""

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
stream = client.chat.completions.create(
    model="specfuse",
    messages=[{"role": "user", "content": "Explain in a few sentences why the sky is blue."}],
    stream=True,
)
for chunk in stream:
    author = (chunk.model_extra or {}).get("ensemble", {}).get("model", "")
    print(f"[{author}] {chunk.choices[0].delta.content!r}" if author else "", flush=True)
