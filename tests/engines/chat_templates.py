"""Chat templates that write calls as published ones do, in fewer words. Jinja drops a newline after a block."""

CALL = '{"name": "{{ c.function.name }}", "%s": {{ c.function.arguments | tojson }}}'

# Qwen 2.5 and 3: an answer after the last question gets an empty thought.
QWEN = (
    "{% if tools %}<|im_start|>system{{ '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "<tools>{% for t in tools %}{{ '\n' }}{{ t | tojson }}{% endfor %}{{ '\n' }}</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% set last = namespace(question=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.question = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.index0 > last.question %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    "<tool_call>\n" + CALL % "arguments" + "\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
)

# Llama 3.1: one bare call a turn, without the turn's text; tools stand in the first question.
LLAMA = (
    "{% if messages[0].role == 'system' %}[system]{{ messages[0].content }}<eot>"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% if tools %}[user]Functions: {{ tools | map(attribute='function') | map(attribute='name') | join(' ') }}. "
    "{{ messages[0].content }}<eot>{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if 'tool_calls' in m %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{% set c = m.tool_calls[0] %}[assistant]" + CALL % "parameters" + "<eot>"
    "{% elif m.role == 'tool' %}[ipython]{{ m.content | tojson }}<eot>"
    "{% else %}[{{ m.role }}]{{ m.content | trim }}<eot>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)

# Mistral: strictly alternating, a list of calls with ids behind a special token.
MISTRAL = (
    "{% set ns = namespace(index=0) %}{% for m in messages if m.role == 'user' or "
    "(m.role == 'assistant' and not m.tool_calls) %}{% if (m.role == 'user') != (ns.index % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set ns.index = ns.index + 1 %}{% endfor %}"
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]</s>"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)

# DeepSeek: the name outside of the JSON, and the arguments as a text that is joined with others.
DEEPSEEK = (
    "{% if tools %}Tools: {{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<call>' + c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}{% endfor %}<eos>{% endfor %}"
)


def marked(begin, end, between="", key="arguments"):
    """A template that writes calls between marks."""
    return (
        "{% if tools %}Tools: {{ tools | tojson }}{% endif %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}"
        + begin
        + CALL % key
        + end
        + "{% if not loop.last %}{{ '"
        + between
        + "' }}{% endif %}{% endfor %}"
        "<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )


LISTED = (
    "{% if tools %}Tools: {{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% if m.tool_calls %}functools[{% for c in m.tool_calls %}"
    + CALL % "arguments"
    + "{% if not loop.last %}, {% endif %}{% endfor %}]{% endif %}<eos>{% endfor %}"
)
