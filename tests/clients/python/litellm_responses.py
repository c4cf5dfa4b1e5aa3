# packages: litellm
# setting: api_base
import litellm

import talk

previous = None
for text in talk.ASKED:
    answer = litellm.responses(
        model=f"openai/{talk.MODEL}",
        api_base=talk.BASE,
        api_key=talk.KEY,
        input=text,
        max_output_tokens=256,
        previous_response_id=previous,
    )
    previous = answer.id
