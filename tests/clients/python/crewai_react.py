# packages: crewai litellm
# setting: base_url
# Calls in words (Thought, Action, Observation): what a model without tools of its own gets. The history is the caller's.
from crewai import LLM, Agent
from crewai.tools import tool

import talk


class InWords(LLM):
    def supports_function_calling(self) -> bool:
        return False


@tool("add")
def add(a: int, b: int) -> str:
    """Adds two whole numbers."""
    return talk.result({"a": a, "b": b})


llm = InWords(model=f"openai/{talk.MODEL}", base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = Agent(
    role="helper", goal=talk.SYSTEM, backstory=talk.SYSTEM, llm=llm, tools=[add], max_iter=3, verbose=False
)
messages = []
for text in talk.ASKED:
    messages.append({"role": "user", "content": text})
    messages.append({"role": "assistant", "content": agent.kickoff(messages).raw})
