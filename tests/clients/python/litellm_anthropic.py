# packages: litellm
# setting: api_base (without /v1)
import litellm

import talk

messages = []
for text in talk.ASKED:
    messages.append({"role": "user", "content": text})
    answer = litellm.completion(
        model=f"anthropic/{talk.MODEL}", api_base=talk.ROOT, api_key=talk.KEY, messages=messages, max_tokens=256
    )
    messages.append(answer.choices[0].message.model_dump(exclude_none=True))
