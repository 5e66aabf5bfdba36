"""An HTML page as a tree, to ask what it says."""

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class Node:
    """An element: its name, its attributes, and what is in it."""

    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, attributes, []

    def all(self, name, **attributes):
        for child in self.children:
            if isinstance(child, Node):
                if child.name == name and attributes.items() <= child.attributes.items():
                    yield child
                yield from child.all(name, **attributes)

    def one(self, name, **attributes):
        (found,) = self.all(name, **attributes)
        return found

    @property
    def text(self):
        return "".join(child.text if isinstance(child, Node) else child for child in self.children)


class Tree(HTMLParser):
    """Reads a page; an element that is not closed where it was opened is an error."""

    def __init__(self, page):
        super().__init__()
        self.open = [Node("document", {})]
        self.feed(page)
        self.close()
        assert [node.name for node in self.open] == ["document"]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)
