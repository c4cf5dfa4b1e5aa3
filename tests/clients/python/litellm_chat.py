# packages: litellm
# setting: api_base
import litellm

import talk

messages = [{"role": "system", "content": talk.SYSTEM}]
for text in talk.ASKED:
    messages.append({"role": "user", "content": text})
    answer = litellm.completion(
        model=f"hosted_vllm/{talk.MODEL}", api_base=talk.BASE, api_key=talk.KEY, messages=messages, max_tokens=256
    )
    messages.append(answer.choices[0].message.model_dump(exclude_none=True))
